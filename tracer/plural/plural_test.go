package plural

import "testing"

func TestOf(t *testing.T) {
	for want, got := range map[string]string{"1 lookup": Of(1, "lookup"), "0 lookups": Of(0, "lookup"), "1 query": Of(uint64(1), "query"), "2 queries": Of(2, "query")} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
