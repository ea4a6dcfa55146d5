"""Reading and writing of images, regions and sinograms."""
