package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// reloadPatience is how long the reload plugin may take to notice: it looks
// every 1.5 to 2.5 s.
const reloadPatience = 30 * time.Second

// The reload plugin notices a Corefile that changed on disk, under traffic. What
// the old server answered is in the old output, what the new one answered in the
// new output, once each, and so is what was on its way to an upstream meanwhile.
func TestReloadTimer(t *testing.T) {
	r := &rig{lab.New(t, lab.Config{}), t}
	r.Upstream(0).Set("slow.test.", lab.Behaviour{Delay: time.Second})
	outputs := []string{filepath.Join(r.Dir(), "old.jsonl"), filepath.Join(r.Dir(), "new.jsonl")}
	answers := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	corefile := func(i int) string {
		return fmt.Sprintf(`. {
    reload 2s 1s
    dnstrace {
        output file %s
    }
    template IN A fast.test {
        answer "{{ .Name }} 60 IN A %s"
    }
    forward . %s
}
`, outputs[i], answers[i], r.Upstream(0).V4())
	}
	server, err := r.StartCoreDNS(corefile(0))
	if err != nil {
		t.Fatal(err)
	}
	load := &reloadLoad{rig: r}
	load.run()
	rewriteCorefile(t, r.Lab, corefile(1))
	for end := time.Now().Add(reloadPatience); !load.answeredWith(answers[1]); load.run() {
		if time.Now().After(end) {
			t.Fatalf("CoreDNS still has the old Corefile after %v", reloadPatience)
		}
	}
	load.run()
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}

	var seen []map[string]int
	for _, output := range outputs {
		seen = append(seen, countNames(t, output))
	}
	for _, res := range load.results {
		checkReloaded(t, res, seen, answers)
		delete(seen[0], res.Name)
		delete(seen[1], res.Name)
	}
	if len(seen[0])+len(seen[1]) != 0 {
		t.Errorf("records of lookups that nobody made: %v, %v", seen[0], seen[1])
	}
}

// rewriteCorefile replaces the file that StartCoreDNS wrote.
func rewriteCorefile(t *testing.T, l *lab.Lab, corefile string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(l.Dir(), "Corefile-*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("Corefiles %v, %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte(corefile), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reloadLoad makes lookups with unique names, one in ten of a name that the
// upstream takes a second to answer.
type reloadLoad struct {
	*rig
	results []lab.Result
}

// run makes lookups for half a second, and waits for their answers.
func (l *reloadLoad) run() {
	done := len(l.results)
	l.results = append(l.results, l.Client("client-a").Bulk(context.Background(), lab.Bulk{
		Count: 200, Rate: 400, Query: func(i int) lab.Query {
			zone := "fast.test."
			if i%10 == 0 {
				zone = "slow.test."
			}
			return lab.Query{Name: fmt.Sprintf("host%d.%s", done+i, zone), Timeout: 3 * time.Second}
		},
	})...)
}

// answeredWith tells whether the last fast lookup has this answer.
func (l *reloadLoad) answeredWith(addr netip.Addr) bool {
	return answer(l.results[len(l.results)-1]) == addr
}

// answer is the address in an answer.
func answer(res lab.Result) netip.Addr {
	if res.Answer == nil || len(res.Answer.Answer) != 1 {
		return netip.Addr{}
	}
	a, ok := res.Answer.Answer[0].(*dns.A)
	if !ok {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(a.A.To4())
	return addr
}

// checkReloaded wants one record of a lookup that was answered, from the server
// that answered it, and at most one of another, which the restart lost.
func checkReloaded(t *testing.T, res lab.Result, seen []map[string]int, answers []netip.Addr) {
	t.Helper()
	before, after := seen[0][res.Name], seen[1][res.Name]
	addr := answer(res)
	switch {
	case res.Err != nil:
		if before+after > 1 {
			t.Errorf("%s: %v, and %d+%d records", res.Name, res.Err, before, after)
		}
	case strings.HasSuffix(res.Name, ".slow.test."):
		if addr != lab.AddrA(res.Name) || before+after != 1 {
			t.Errorf("%s is answered with %s, and has %d+%d records", res.Name, addr, before, after)
		}
	case addr == answers[0] && before == 1 && after == 0, addr == answers[1] && before == 0 && after == 1:
	default:
		t.Errorf("%s is answered with %s, and has %d+%d records", res.Name, addr, before, after)
	}
}

// countNames counts the query records of each name in a file.
func countNames(t *testing.T, path string) map[string]int {
	t.Helper()
	names := make(map[string]int)
	for _, rec := range readRecords(t, path) {
		q, ok := rec.(*trace.Query)
		if !ok {
			t.Fatalf("%s has a record %s", path, rec.Kind())
		}
		names[q.QName]++
	}
	return names
}
