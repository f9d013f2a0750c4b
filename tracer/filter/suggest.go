package filter

import (
	"fmt"
	"strings"
)

// suggest proposes an existing name for one that does not exist. inside: the name was looked
// up in an object within the record.
func suggest(expression, name string, inside bool) string {
	names := schema.names(inside)
	best := nearest(name, names)
	switch {
	case best != "":
		return fmt.Sprintf("did you mean %s?", best)
	case !inside && isValue(expression, name):
		return fmt.Sprintf("a string needs quotes: %q", name)
	case inside:
		// All fields of all objects would be no help as a list.
		return "`-o json` shows a record with all its fields"
	}
	return "a record has: " + strings.Join(names, " ")
}

// isValue tells whether a name stands where a value belongs that lacks its
// quotes, as in rcode == NXDOMAIN.
func isValue(expression, name string) bool {
	before, _, _ := strings.Cut(expression, name)
	return strings.HasSuffix(strings.TrimSpace(before), "=")
}

// nearest returns the name closest to a mistyped one, or nothing if none is
// close enough to be meant.
func nearest(name string, names []string) string {
	best, distance := "", max(min(2, len(name)/2), len(name)/3)+1
	for _, n := range names {
		if d := editDistance(strings.ToLower(name), n); d < distance {
			best, distance = n, d
		}
	}
	return best
}

// editDistance counts the insertions, removals and replacements from a to b
// (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
