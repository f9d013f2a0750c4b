package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
)

// figure is something that was measured, once a round.
type figure struct {
	name    string
	variant string
	unit    string
	values  []float64
	goal    goal
}

// goal is what a figure should reach: its median, or every round. The zero value
// is no goal.
type goal struct {
	atLeast, atMost bool
	value           float64
	everyRound      bool
}

func atLeast(v float64) goal { return goal{atLeast: true, value: v} }
func atMost(v float64) goal  { return goal{atMost: true, value: v} }

// never is for what must not be, not even in one round.
func never() goal { return goal{atMost: true, everyRound: true} }

func (g goal) judge(f figure) string {
	if !g.atLeast && !g.atMost {
		return ""
	}
	low, value, high := f.spread()
	sign, worst := "≥", low
	if g.atMost {
		sign, worst = "≤", high
	}
	if g.everyRound {
		value = worst
	}
	verdict := "missed"
	if g.atLeast && value >= g.value || g.atMost && value <= g.value {
		verdict = "reached"
	}
	return fmt.Sprintf("%s %s  %s", sign, number(g.value), verdict)
}

// spread returns the smallest value, the median and the largest.
func (f figure) spread() (low, median, high float64) {
	sorted := slices.Sorted(slices.Values(f.values))
	return sorted[0], medianOf(sorted), sorted[len(sorted)-1]
}

// medianOf returns the middle of sorted values, or what is between the two in
// the middle.
func medianOf(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// figures collects the values of rounds, in the order in which they first came.
type figures struct {
	list []figure
}

// add notes a value of a round.
func (fs *figures) add(name, variant, unit string, value float64, g goal) {
	for i := range fs.list {
		if f := &fs.list[i]; f.name == name && f.variant == variant {
			f.values = append(f.values, value)
			return
		}
	}
	fs.list = append(fs.list, figure{name, variant, unit, []float64{value}, g})
}

// sorted returns the figures of a name together, by variant in the given order.
func (fs *figures) sorted(variants []string) []figure {
	var names []string
	for _, f := range fs.list {
		if !slices.Contains(names, f.name) {
			names = append(names, f.name)
		}
	}
	slices.SortStableFunc(fs.list, func(a, b figure) int {
		if a.name != b.name {
			return slices.Index(names, a.name) - slices.Index(names, b.name)
		}
		return slices.Index(variants, a.variant) - slices.Index(variants, b.variant)
	})
	return fs.list
}

// printTable writes the figures of a part.
func printTable(w io.Writer, title string, list []figure) error {
	rounds := 0
	for _, f := range list {
		rounds = max(rounds, len(f.values))
	}
	fmt.Fprintf(w, "\n%s\n", title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\t\tmin – median – max of %d rounds\tunit\tgoal\n", rounds)
	previous := ""
	for _, f := range list {
		name := f.name
		if name == previous {
			name = ""
		}
		previous = f.name
		low, median, high := f.spread()
		fmt.Fprintf(t, "%s\t%s\t%s – %s – %s\t%s\t%s\n", name, f.variant, number(low), number(median), number(high), f.unit, f.goal.judge(f))
	}
	return t.Flush()
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
