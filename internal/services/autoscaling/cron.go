package autoscaling

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// cron is a Recurrence: minute, hour, day of month, month, day of week, as
// bit sets. Where both kinds of day are restricted, either will do (crontab(5)).
type cron struct {
	minute, hour, day, month, weekday uint64
	anyDay, anyWeekday                bool
}

var monthNames = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func parseCron(text string) (*cron, error) {
	f := strings.Fields(text)
	if len(f) != 5 {
		return nil, fmt.Errorf("it has %d fields, not 5: minute, hour, day of month, month, day of week", len(f))
	}
	c := &cron{anyDay: f[2] == "*" || f[2] == "?", anyWeekday: f[4] == "*" || f[4] == "?"}
	for n, part := range []struct {
		to       *uint64
		what     string
		low, top int
		names    []string
	}{{&c.minute, "minute", 0, 59, nil}, {&c.hour, "hour", 0, 23, nil}, {&c.day, "day of month", 1, 31, nil}, {&c.month, "month", 1, 12, monthNames}, {&c.weekday, "day of week", 0, 7, dayNames}} {
		set, err := cronField(f[n], part.low, part.top, part.names)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.what, err)
		}
		*part.to = set
	}
	if c.weekday&(1<<7) != 0 { // 7 is Sunday too
		c.weekday |= 1
	}
	return c, nil
}

func cronField(text string, low, top int, names []string) (set uint64, err error) {
	for item := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(item, "/")
		step := 1
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > top {
				return 0, fmt.Errorf("%q is no step", stepText)
			}
		}
		from, to := low, top
		if span != "*" && span != "?" {
			first, last, ranged := strings.Cut(span, "-")
			if from, err = cronNumber(first, low, top, names); err != nil {
				return 0, err
			}
			switch {
			case ranged:
				if to, err = cronNumber(last, low, top, names); err != nil {
					return 0, err
				}
			case !stepped:
				to = from
			}
			if to < from {
				return 0, fmt.Errorf("%q runs backwards", span)
			}
		}
		for n := from; n <= to; n += step {
			set |= 1 << n
		}
	}
	return set, nil
}

func cronNumber(text string, low, top int, names []string) (int, error) {
	for n, name := range names {
		if strings.EqualFold(text, name) {
			return n + low, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > top {
		return 0, fmt.Errorf("%q is not between %d and %d", text, low, top)
	}
	return n, nil
}

// next is the first time after t, in loc; zero where there is none within
// five years (the 30th of February). A time that a change of clocks skips
// runs an hour later, one that comes twice runs once.
func (c *cron) next(t time.Time, loc *time.Location) time.Time {
	local := t.In(loc)
	day := time.Date(local.Year(), local.Month(), local.Day(), 12, 0, 0, 0, loc)
	for range 5*366 + 1 {
		if c.onDay(day) {
			for hours := c.hour; hours != 0; hours &= hours - 1 {
				for minutes := c.minute; minutes != 0; minutes &= minutes - 1 {
					at := time.Date(day.Year(), day.Month(), day.Day(), bits.TrailingZeros64(hours), bits.TrailingZeros64(minutes), 0, 0, loc)
					if at.After(t) {
						return at.UTC()
					}
				}
			}
		}
		day = day.AddDate(0, 0, 1)
	}
	return time.Time{}
}

func (c *cron) onDay(d time.Time) bool {
	if c.month&(1<<d.Month()) == 0 {
		return false
	}
	byDay, byWeekday := c.day&(1<<d.Day()) != 0, c.weekday&(1<<d.Weekday()) != 0
	if c.anyDay || c.anyWeekday {
		return byDay && byWeekday
	}
	return byDay || byWeekday
}
