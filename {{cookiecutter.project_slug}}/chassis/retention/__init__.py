"""What is kept: for how long, and all of one owner's, to hand over or to erase."""
