"""Lightning callbacks: thin lifecycles over the functions of the parts; one file a method."""
