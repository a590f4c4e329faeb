"""The demo: a sample corpus of a made-up organisation, a real pretrained model, and the whole pipeline on both."""
