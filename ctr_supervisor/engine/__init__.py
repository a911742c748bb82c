"""One file per lifecycle verb; `launch` is what create and exec have in common."""
