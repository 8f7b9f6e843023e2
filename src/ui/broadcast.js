// This device as a camera.
