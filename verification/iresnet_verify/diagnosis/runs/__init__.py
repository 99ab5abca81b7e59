"""What a run of the subject does on the way: the layers that g applies, the steps that forward makes."""
