"""What a segmentation is: tracks, their masks, and pictures of them."""
