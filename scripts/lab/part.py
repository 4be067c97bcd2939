"""What a part of the comparison consists of."""


class Part:
    """Who is compared, what is measured and how, and which bars Wharf must reach."""

    def __init__(self, name, title, about, kinds, default, measures, measure, bars, floor, checks=None):
        self.name, self.title, self.about = name, title, about
        #: Name to class of every switch, and the names of those that run unless others are asked for.
        self.kinds, self.default = kinds, default
        #: Word to (title, unit, more is better).
        self.measures = measures
        #: `measure(switch, what, seconds)` gives the figures of one measurement, `value` among them.
        self.measure = measure
        #: (measure, the others of whom the best counts, the bound of the median ratio Wharf / other).
        self.bars = bars
        #: The switch whose ratios stand in the table.
        self.floor = floor
        #: `checks(rounds)` gives further bars as (text, reached).
        self.checks = checks or (lambda rounds: [])
