"""``gpurerank bench``: the speed of a model on this machine. Needs the extra ``bench`` to plot."""
