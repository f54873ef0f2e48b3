"""How good the frames are that a video model predicts."""
