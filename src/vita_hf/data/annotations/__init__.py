"""The one reader of YouTube-VIS, OVIS and COCO annotation files."""
