"""What the process that a study's trainings are forked from imports: all that they need, without the noise of it.

Outside of `corpus_teacher.study`, whose own imports would speak first.
"""

from corpus_teacher.noise import still_noise

still_noise()

import corpus_teacher.study.measuring  # noqa: E402, F401
