package anomaly

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// reference computes what Expect promises from the definition: by looking for
// the points of the season, two passes over each list.
func reference(points []Point, o Options, at int64) (mean, deviation float64, ok bool) {
	zone := o.Zone
	if zone == nil {
		zone = time.UTC
	}
	var kept []Point
	for _, p := range points {
		in := false
		for _, s := range o.Excluded {
			in = in || p.At >= s.Start && p.At < s.End
		}
		if !in {
			kept = append(kept, p)
		}
	}
	if len(kept) == 0 || len(kept) < o.MinPoints || kept[len(kept)-1].At-kept[0].At < o.MinSpan {
		return 0, 0, false
	}
	when := time.Unix(at, 0).In(zone)
	seasons := []func(a, b time.Time) bool{
		func(a, b time.Time) bool { return a.Weekday() == b.Weekday() && a.Hour() == b.Hour() },
		func(a, b time.Time) bool { return a.Hour() == b.Hour() },
		func(a, b time.Time) bool { return true },
	}
	for l, same := range seasons {
		var own []Point
		days := map[string]bool{}
		for _, p := range kept {
			if t := time.Unix(p.At, 0).In(zone); same(t, when) {
				own = append(own, p)
				days[t.Format(time.DateOnly)] = true
			}
		}
		if len(days) < 2 && l < 2 {
			continue
		}
		mean = average(own)
		if len(own) >= 10 {
			return mean, math.Sqrt(squares(own) / float64(len(own))), true
		}
		total := 0.0
		var done []time.Time
	next:
		for _, p := range kept {
			t := time.Unix(p.At, 0).In(zone)
			for _, d := range done {
				if same(t, d) {
					continue next
				}
			}
			done = append(done, t)
			var group []Point
			for _, q := range kept {
				if same(time.Unix(q.At, 0).In(zone), t) {
					group = append(group, q)
				}
			}
			total += squares(group)
		}
		return mean, math.Sqrt(total / float64(len(kept))), true
	}
	return 0, 0, false
}

func average(l []Point) float64 {
	t := 0.0
	for _, p := range l {
		t += p.Value
	}
	return t / float64(len(l))
}

func squares(l []Point) float64 {
	m, t := average(l), 0.0
	for _, p := range l {
		t += (p.Value - m) * (p.Value - m)
	}
	return t
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-7*(1+math.Abs(a)+math.Abs(b)) }

func TestModelIsWhatItSays(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		start := time.Date(2026, 3, 20, rnd.IntN(24), 0, 0, 0, time.UTC).Unix() // the clocks change on the 29th
		step := []int64{60, 300, 3600}[rnd.IntN(3)]
		days := 1 + rnd.Int64N(14)
		if step == 60 {
			days = 1 // the reference is slow
		}
		var points []Point
		for at := start; at < start+days*86400; at += step {
			if rnd.IntN(5) > 0 { // with gaps
				points = append(points, Point{at, rnd.NormFloat64()*10 + float64(at/3600%24)})
			}
		}
		o := Options{MinPoints: rnd.IntN(50), MinSpan: rnd.Int64N(2 * 86400)}
		if rnd.IntN(2) == 0 {
			o.Zone = berlin
		}
		for range rnd.IntN(3) {
			s := start + rnd.Int64N(days*86400)
			o.Excluded = append(o.Excluded, Span{s, s + rnd.Int64N(86400)})
		}
		m := Train(points, o)
		for range 8 {
			at := start + rnd.Int64N(20*86400)
			mean, deviation, ok := m.Expect(at)
			wantMean, wantDeviation, wantOK := reference(points, o, at)
			if ok != wantOK || ok && (!near(mean, wantMean) || !near(deviation, wantDeviation)) {
				t.Fatalf("seed %d: at %d: %v ± %v %v, want %v ± %v %v", seed, at, mean, deviation, ok, wantMean, wantDeviation, wantOK)
			}
			if !ok {
				continue
			}
			lower, upper, _ := m.Band(at, 2)
			wideLower, wideUpper, _ := m.Band(at, 3)
			if !(wideLower <= lower && lower <= mean && mean <= upper && upper <= wideUpper) {
				t.Fatalf("seed %d: bands [%v %v] in [%v %v] around %v", seed, lower, upper, wideLower, wideUpper, mean)
			}
		}
	}
}

func TestSeasons(t *testing.T) {
	monday := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC).Unix()
	week := func(at int64) float64 { // working hours on working days
		d := time.Unix(at, 0).UTC()
		if d.Weekday() != time.Saturday && d.Weekday() != time.Sunday && d.Hour() >= 9 && d.Hour() < 17 {
			return 1000 + float64(at/300%2) // deviation 0.5
		}
		return 10 + float64(at/300%2)
	}
	learn := func(days int64, o Options) *Model {
		var points []Point
		for at := monday; at < monday+days*86400; at += 300 {
			points = append(points, Point{at, week(at)})
		}
		return Train(points, o)
	}
	tuesday, sunday := int64(15*86400+10*3600), int64(20*86400+10*3600) // both at ten
	for _, c := range []struct {
		days        int64
		at          int64
		mean, sigma float64
	}{
		{14, tuesday, 1000.5, 0.5},                 // hour of the week
		{14, sunday, 10.5, 0.5},                    //
		{4, tuesday, 1000.5, 0.5},                  // hour of the day: Monday to Thursday
		{4, sunday, 1000.5, 0.5},                   // it does not know weekends yet
		{1, tuesday, 340.5, math.NaN()},            // all hours: a third of them at 1000
		{7, sunday, 1000.5 - 990.*2/7, math.NaN()}, // hour of the day: two days of seven are quiet
	} {
		m := learn(c.days, Options{})
		mean, sigma, ok := m.Expect(monday + c.at)
		if !ok || !near(mean, c.mean) || !math.IsNaN(c.sigma) && !near(sigma, c.sigma) {
			t.Errorf("after %d days: %v ± %v %v, want %v ± %v", c.days, mean, sigma, ok, c.mean, c.sigma)
		}
	}
}

func TestTooLittle(t *testing.T) {
	if _, _, ok := Train(nil, Options{}).Band(0, 2); ok {
		t.Error("nothing makes a band")
	}
	points := []Point{{0, 1}, {60, 2}, {120, 3}}
	for _, o := range []Options{{MinPoints: 4}, {MinSpan: 121}, {Excluded: []Span{{0, 121}}}} {
		if Train(points, o).Trained() {
			t.Errorf("%+v: trained", o)
		}
	}
	if !Train(points, Options{MinPoints: 3, MinSpan: 120}).Trained() {
		t.Error("just enough is not enough")
	}
}

func TestConstantMetric(t *testing.T) {
	var points []Point
	for at := range int64(1000) {
		points = append(points, Point{at * 60, 0.1})
	}
	if lower, upper, ok := Train(points, Options{}).Band(5000, 2); !ok || lower != 0.1 || upper != 0.1 {
		t.Errorf("band [%v %v] of a metric that is always 0.1", lower, upper)
	}
}

func TestLogicalBounds(t *testing.T) {
	points := []Point{{0, 0}, {60, 100}}
	m := Train(points, Options{Floor: new(0.0), Ceiling: new(100.0)})
	if lower, upper, _ := m.Band(0, 3); lower != 0 || upper != 100 {
		t.Errorf("band [%v %v]", lower, upper)
	}
}
