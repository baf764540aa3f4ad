"""Starting from an image of one's own: variations, deblurring, enlarging, filling in."""
