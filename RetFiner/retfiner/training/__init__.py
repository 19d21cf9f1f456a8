"""Lightning's side of refinement: the loop, what trains, and what happens meanwhile."""
