"""What several objectives share: masks, corruptions, decoders, targets, losses, teachers, schedules, quantisers."""
