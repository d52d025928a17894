"""`clr-native demo`: training on real handwritten digits, compared with torch's own optimizer.

Needs the extra: `pip install "clr-native[demo]"`.
"""
