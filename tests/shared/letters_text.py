"""A text encoder that is a module, as those of instructions are, and knows what it makes of every text."""

import torch


class LettersText(torch.nn.Module):
    """Three values by the letters of the text."""

    width = 3

    def encode(self, texts):
        return torch.stack([torch.tensor([len(text), text.count("o"), text.count("e")]).float() for text in texts])

    def config(self):
        return {"name": "letters"}
