"""uptal: unsupervised pre-training of clip encoders for temporal action localization (UP-TAL, CVPR 2022)."""
