"""What is known of images of digits: how to draw, distort, measure, read and show them."""
