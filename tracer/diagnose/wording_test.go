package diagnose_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// unsaid is what nobody says: one of several, and values that are missing.
var unsaid = regexp.MustCompile(`(^|[^\d.])1 (more )?(lookups|queries|attempts|upstreams|packets|records|traces|responses|names|addresses|seconds|drops|fragments|entries|transmissions|timeouts|nodes|clients|times|exchanges)\b` +
	`|\b(one|1) (queries|lookups)\b|ended as( after| :|:|$)|(error|rcode|code|outcome|cache|by|as|reason)(:| is)? none\b|: *none$|<nil>|%!|\(\)|  +[a-z]| ,|\.\.$`)

// What is said of every recorded case, findings and gaps, whole or with packets missing.
func TestWording(t *testing.T) {
	check := func(name, text string) {
		if bad := unsaid.FindString(text); bad != "" {
			t.Errorf("%s says %q: %s", name, bad, text)
		}
	}
	for _, path := range recordedCases(t) {
		for _, change := range []func(trace.Record){func(trace.Record) {}, losing(1), losing(7)} {
			for _, tr := range assembledWith(t, path, change) {
				for _, gap := range tr.Gaps {
					check(caseName(path), gap)
				}
				for _, f := range findings([]*trace.Trace{tr}) {
					for _, text := range slices.Concat([]string{f.Summary, f.Advice}, f.Evidence) {
						check(caseName(path), text)
					}
				}
			}
		}
	}
}

// losing says in each exchange that the tracer lost packets.
func losing(n uint64) func(trace.Record) {
	return func(r trace.Record) {
		if ex, ok := r.(*trace.Exchange); ok {
			ex.LostEvents = n
		}
	}
}

// What is drawn of the samples says none of it either, nor do the outputs in docs/.
func TestWordingOfDrawings(t *testing.T) {
	// In a drawing, spaces align what is beneath each other, and some of it is cut.
	drawn := regexp.MustCompile(`(^|[^\d.])1 (lookups|queries|attempts|upstreams|packets|records|traces|responses|times|timeouts)\b|ended as (error|timeout): none\b|error: none\b|<nil>|%!`)
	var files []string
	for _, pattern := range []string{"../render/testdata/*.txt", "../../docs/*.txt", "../../docs/*.md", "../../README.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		files = append(files, found...)
	}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range drawn.FindAllString(string(content), -1) {
			t.Errorf("%s says %q", path, bad)
		}
	}
}

func TestUnsaid(t *testing.T) {
	for text, bad := range map[string]bool{
		"1 lookups": true, "1 lookup": false, "11 lookups": false, "attempt 1 ended as error: none": true, "rcode none": true, "0.1 seconds": false,
		"1 queries": true, "ended as timeout after 2s": false, "CoreDNS recorded the query: cache none, answered by forward": true,
	} {
		if unsaid.MatchString(text) != bad {
			t.Errorf("%q: %t", text, !bad)
		}
	}
}
