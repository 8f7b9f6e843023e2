"""opencv.py URL N: prints the first N pictures of a stream as OpenCV sees them, one line each: width, height, and red,
green and blue in the middle."""

import json
import sys

import cv2

url, count = sys.argv[1], int(sys.argv[2])
limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 10000]
stream = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
if not stream.isOpened():
    sys.exit("OpenCV cannot open the stream")
for number in range(count):
    came, picture = stream.read()
    if not came:
        sys.exit(f"the stream ended after {number} pictures")
    height, width, _ = picture.shape
    blue, green, red = picture[height // 2, width // 2]
    print(json.dumps([width, height, int(red), int(green), int(blue)]), flush=True)
