"""System calls that Python lacks (`_kernel`, C), the kernel's constants, and the seccomp compiler (`_seccomp`, C)."""
