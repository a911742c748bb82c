"""Control groups: where the container's processes are counted, limited, frozen and found again."""
