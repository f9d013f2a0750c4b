// Package figures is what the benchmarks have in common: figures with their spread
// and goals, tables of them, and a file of results.
package figures

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Figure is something that was measured, once a round.
type Figure struct {
	Name    string    `json:"name"`
	Variant string    `json:"variant"`
	Unit    string    `json:"unit,omitempty"`
	Values  []float64 `json:"values"` // in the order of the rounds
	Goal    Goal      `json:"goal,omitzero"`
}

// Goal is what a figure should reach: its median, or every round. The zero value
// is no goal.
type Goal struct {
	AtLeast    *float64 `json:"at_least,omitempty"`
	AtMost     *float64 `json:"at_most,omitempty"`
	EveryRound bool     `json:"every_round,omitempty"`
}

// AtLeast is reached from v on.
func AtLeast(v float64) Goal { return Goal{AtLeast: &v} }

// AtMost is reached up to v.
func AtMost(v float64) Goal { return Goal{AtMost: &v} }

// Always is reached if every round is at v or above.
func Always(v float64) Goal { return Goal{AtLeast: &v, EveryRound: true} }

// Never is for what must not be, not even in one round.
func Never() Goal { return Goal{AtMost: new(float64), EveryRound: true} }

// judge says what the goal of a figure is and whether it is reached; nothing where
// it has none.
func (f Figure) judge() (goal, verdict string) {
	low, value, high := f.spread()
	var reached bool
	switch g := f.Goal; {
	case g.AtLeast != nil:
		if g.EveryRound {
			value = low
		}
		goal, reached = "≥ "+number(*g.AtLeast), value >= *g.AtLeast
	case g.AtMost != nil:
		if g.EveryRound {
			value = high
		}
		goal, reached = "≤ "+number(*g.AtMost), value <= *g.AtMost
	default:
		return "", ""
	}
	if !reached {
		return goal, "missed"
	}
	return goal, "reached"
}

// spread returns the smallest value, the median and the largest.
func (f Figure) spread() (low, median, high float64) {
	sorted := slices.Sorted(slices.Values(f.Values))
	return sorted[0], medianOf(sorted), sorted[len(sorted)-1]
}

// medianOf returns the middle of sorted values, or what is between the two in
// the middle.
func medianOf(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Figures collects the values of rounds, in the order in which they first came.
type Figures struct {
	list []Figure
}

// Add notes a value of a round.
func (fs *Figures) Add(name, variant, unit string, value float64, g Goal) {
	for i := range fs.list {
		if f := &fs.list[i]; f.Name == name && f.Variant == variant {
			f.Values = append(f.Values, value)
			return
		}
	}
	fs.list = append(fs.list, Figure{name, variant, unit, []float64{value}, g})
}

// Sorted returns the figures of a name together, by variant in the given order.
func (fs *Figures) Sorted(variants []string) []Figure {
	var names []string
	for _, f := range fs.list {
		if !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	slices.SortStableFunc(fs.list, func(a, b Figure) int {
		if a.Name != b.Name {
			return slices.Index(names, a.Name) - slices.Index(names, b.Name)
		}
		return slices.Index(variants, a.Variant) - slices.Index(variants, b.Variant)
	})
	return fs.list
}

// Print writes the figures of a part.
func Print(w io.Writer, title string, list []Figure) error {
	fmt.Fprintf(w, "\n%s\n", title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\t\tmin – median – max, rounds: %d\tunit\tgoal\n", rounds(list))
	for _, row := range rows(list) {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// rounds is of how many rounds the figures are.
func rounds(list []Figure) int {
	n := 0
	for _, f := range list {
		n = max(n, len(f.Values))
	}
	return n
}

// rows are the cells of a table: name, variant, spread, unit, goal. A name that is
// that of the row before is left out.
func rows(list []Figure) [][]string {
	var all [][]string
	previous := ""
	for _, f := range list {
		name := f.Name
		if name == previous {
			name = ""
		}
		previous = f.Name
		low, median, high := f.spread()
		goal, verdict := f.judge()
		all = append(all, []string{name, f.Variant, fmt.Sprintf("%s – %s – %s", number(low), number(median), number(high)), f.Unit, strings.TrimSpace(goal + " " + verdict)})
	}
	return all
}

// number writes a value with some three digits that say something.
func number(v float64) string {
	size := v
	if size < 0 {
		size = -size
	}
	switch {
	case v == 0:
		return "0"
	case size >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case size >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case size >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
}
