"""`clr-native demo`: the main job on real handwritten digits, beside torch's own optimizer.

Needs the extra: `pip install "clr-native[demo]"`.
"""
