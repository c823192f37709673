"""Verifiable instructions of IFEval-Ko: whether a Korean answer did what the question asked of its form.

Zhou et al. (2023), arXiv:2311.07911, have 25 types; the Korean set leaves out the four that count letters or
letter case. The rules are theirs; what Korean asks otherwise is written down where it is decided:

- Text and arguments are put into NFC; letter case does not matter.
- A word that is asked for may carry particles, so it is looked for as a part (`keywords`).
- A word that is counted is an eojeol, a sentence is Kiwi's (`text`).
- What language an answer is in is told by its script, else by langdetect, as in IFEval (`language`).
"""
