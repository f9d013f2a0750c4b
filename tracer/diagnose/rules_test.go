package diagnose_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// contractCodes are the codes that users rely on.
const contractCodes = `upstream-timeout upstream-error upstream-unhealthy dropped-by-bpf dropped-by-netfilter dropped-no-socket
	dropped-receive-buffer dropped-other conntrack-race conntrack-full stale-endpoint no-response-seen
	query-never-arrived response-lost response-rejected client-gave-up search-path-amplification nxdomain-storm truncated-retry
	oversized-response server-slow server-overloaded refused-by-server retransmission slow-upstream
	listen-queue-full cached-failure concurrency-limit type-ignored unexpected-source inconsistent-answers
	truncated-not-retried search-path-shadowed path-mtu forwarding-loop`

// Every code has a rule in a file of its own, which says what proves it, and a
// scenario in the lab that wants it found in a real fault.
func TestEveryCodeHasARuleAndAScenario(t *testing.T) {
	codes := strings.Fields(contractCodes)
	slices.Sort(codes)
	if !slices.Equal(codes, slices.Sorted(slices.Values(diagnose.Codes))) {
		t.Errorf("the codes are not those that users rely on: %q", diagnose.Codes)
	}
	scenarios := labTests(t)
	for _, code := range codes {
		file := strings.ReplaceAll(code, "-", "_") + ".go"
		rule, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%s has no rule of its own: %v", code, err)
		}
		if !regexp.MustCompile(`(?s)// .*\bProof:.*\nfunc `).Match(rule) {
			t.Errorf("%s does not say what proves it", file)
		}
		if !regexp.MustCompile(`(?:\bfinds\(|\bevidence\(|code == )[^\n]*"` + code + `"`).MatchString(scenarios) {
			t.Errorf("no test in the lab wants a finding %s", code)
		}
	}
}

// kept is how a test of the lab writes a recorded case.
var kept = regexp.MustCompile(`\.keep\("([^"]+)"`)

// Every recorded case is one that a test in the lab makes: it can be made again,
// by the tracer of today. A name that the test goes on with stands for all that
// begin with it.
func TestEveryCaseCanBeMadeAgain(t *testing.T) {
	var names, begins []string
	for _, m := range kept.FindAllStringSubmatch(labTests(t), -1) {
		if strings.HasSuffix(m[1], "-") {
			begins = append(begins, m[1])
		} else {
			names = append(names, m[1])
		}
	}
	cases, err := filepath.Glob("testdata/*.jsonl*")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no recorded cases: %v", err)
	}
	for _, path := range cases {
		name := caseName(path)
		if !slices.Contains(names, name) && !slices.ContainsFunc(begins, func(b string) bool { return strings.HasPrefix(name, b) }) {
			t.Errorf("no test in the lab keeps the case %s", name)
		}
	}
}

// labTests is the text of the tests that diagnose faults in the lab.
func labTests(t *testing.T) string {
	t.Helper()
	paths, err := filepath.Glob("../../integration/*_test.go")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no tests of the lab: %v", err)
	}
	var all strings.Builder
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}
