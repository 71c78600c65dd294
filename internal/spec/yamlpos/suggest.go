package yamlpos

import (
	"strconv"
	"strings"
)

// Suggest returns a hint naming the option nearest to what was written, or "" when none is near.
func Suggest(written string, options ...string) string {
	best, bestDist := "", 3
	norm := func(s string) string {
		return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(s))
	}
	for _, o := range options {
		d := distance(norm(written), norm(o))
		if len(written) > 2 && strings.HasPrefix(norm(o), norm(written)) {
			d = 1 // cut short
		}
		if limit := len(o)/3 + 1; d > limit {
			continue
		}
		if d < bestDist {
			best, bestDist = o, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + strconv.Quote(best) + "?"
}

// distance is the Levenshtein distance; long inputs are cut, they are no typing slips.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			prev, row[j] = row[j], min(row[j]+1, row[j-1]+1, prev+cost)
		}
	}
	return row[len(b)]
}
