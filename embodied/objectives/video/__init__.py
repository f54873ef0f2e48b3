"""Methods that learn by predicting the frames of videos."""
