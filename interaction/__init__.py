"""Interaction models: full-duplex audio, video and text in 200 ms micro-turns."""
