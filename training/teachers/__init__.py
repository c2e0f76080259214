"""Who shows a policy what to do before it learns by reward alone. A teacher never plays itself."""

from training.teachers.teacher import TEACHERS, Teacher, build_teacher

__all__ = ["TEACHERS", "Teacher", "build_teacher"]
