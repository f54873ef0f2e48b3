"""Layouts of other libraries' vision transformers: one module per `model_type` of transformers, and `timm_vit`.

A module of a `model_type` holds

- `CONFIG` and `MODEL`, the names of its classes in transformers, and `PREFERENCE`: of the formats that can hold an
  encoder, the one with the lowest is written;
- `FITS`, the values of our arguments that it can hold;
- `arguments`, their config as our arguments, and `settings`, our arguments as their config;
- `layout`, the names of its tensors, and `write` where tensors need more than new names.
"""
