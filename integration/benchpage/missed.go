package main

import (
	"regexp"
	"slices"
	"strings"
)

// partOf is how a page names the part that a table is of, as figures.Part writes it.
var partOf = regexp.MustCompile("^`make bench.* BENCHFLAGS='-only (\\w+)'`$")

// unexplained returns how the explanations begin that a page lacks: one for each
// figure that misses its goal, by the part's name and the figure's, whatever the
// variant.
func unexplained(page string) []string {
	lines := strings.Split(page, "\n")
	var missing []string
	part, name := "", ""
	for _, line := range lines {
		if m := partOf.FindStringSubmatch(line); m != nil {
			part = m[1]
		}
		cells := strings.Split(line, "|")
		if len(cells) != 7 {
			continue // no row of a table
		}
		// A name that is that of the row before is left out.
		if of := strings.TrimSpace(cells[1]); of != "" {
			name = of
		}
		key := "* **" + part + ", " + name + "**:"
		if strings.HasSuffix(strings.TrimSpace(cells[5]), " missed") && !slices.Contains(missing, key) &&
			!slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, key+" ") }) {
			missing = append(missing, key)
		}
	}
	return missing
}
