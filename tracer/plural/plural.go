// Package plural writes numbers with their nouns.
package plural

import (
	"fmt"
	"strings"
)

// Of returns a number with its noun, which is given in the singular: 1 query, 2 queries.
func Of[N int | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if before, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, before)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
