"""The recorder process: a kernel that encodes what training scripts record, while there are any."""
