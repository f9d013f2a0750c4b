//go:build cilium

package cilium

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// All lookups of the table in each way in which Cilium can carry a packet, with the tracer
// installed as deploy/ says: what their clients get, and what is said of them.
func TestCilium(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			n := startNode(t, v)
			n.install(v)
			n.warm()
			n.trace()

			made := slices.DeleteFunc(slices.Clone(lookups), func(l lookup) bool { return l.names && !v.names })
			results := n.lookup(made)
			n.stop()
			maps.Copy(results, n.lookup(stopped))
			n.remove(v)
			maps.Copy(results, n.lookup(absent(v)))
			maps.Copy(results, n.lookup([]lookup{last}))
			t.Log(n.check()) // what was refused, or left out
			records := n.records()

			made = slices.Concat(made, stopped, absent(v), []lookup{last})
			for _, l := range made {
				t.Run(strings.TrimSuffix(l.name, "."), func(t *testing.T) { l.check(t, v, results[l.name], l.traces(records)) })
			}
			t.Run("others", func(t *testing.T) { checkOthers(t, made, records) })
		})
	}
}

// check judges what the client of a lookup got, and what was said of it.
func (l lookup) check(t *testing.T, v variant, result string, traces []*trace.Trace) {
	t.Logf("its client got %q", result)
	if !l.got(result) {
		t.Errorf("expected %s", l.result)
	}
	wrong := l.judge(traces, v)
	for _, w := range wrong {
		t.Error(w)
	}
	for _, tr := range traces {
		if len(wrong) > 0 {
			t.Log(excerpt(tr))
		}
	}
}

// got tells whether a client got what it must.
func (l lookup) got(result string) bool {
	if l.result != refused {
		return result == l.result
	}
	code, _, _ := strings.Cut(result, " ")
	return result != "" && result != silence && code != strings.ToUpper(code)
}

// traces are those of a lookup; of one that went on when it was told, the last.
func (l lookup) traces(records []*trace.Trace) []*trace.Trace {
	var list []*trace.Trace
	for _, t := range records {
		if !l.is(t) {
			continue
		}
		if t.Replaces {
			list = slices.DeleteFunc(list, func(before *trace.Trace) bool { return before.TraceID == t.TraceID && before.Time.Equal(t.Time) })
		}
		list = append(list, t)
	}
	return list
}

// is tells whether a trace is of this lookup, by its name; of an attempt to connect, by who
// made it, and to whom.
func (l lookup) is(t *trace.Trace) bool {
	if !l.want.connects {
		return t.QName == l.name
	}
	return t.QName == "" && t.Client != nil && t.Client.Pod == l.pod && t.Server != nil && t.Server.Service == l.want.service
}

// checkOthers judges what is told beside the table: what CoreDNS asks of its own, whether
// its upstreams are there. Those record nothing, which proves nothing.
func checkOthers(t *testing.T, made []lookup, records []*trace.Trace) {
	for _, tr := range records {
		switch {
		case slices.ContainsFunc(made, func(l lookup) bool { return l.is(tr) }):
		case tr.Client != nil && strings.HasPrefix(tr.Client.Pod, "coredns-") && tr.QName != ".":
			t.Errorf("told as a client's lookup\n%s", excerpt(tr))
		case slices.ContainsFunc(tr.Diagnosis, func(f trace.Finding) bool { return slices.Contains(f.Evidence, unrecorded) }):
			t.Errorf("said of a server that is not known to record\n%s", excerpt(tr))
		}
	}
}

// unrecorded is evidence only where a server is known to record the zone.
const unrecorded = "CoreDNS never recorded it: no query record of this lookup came"

// lookup makes lookups, all at once, and returns what their clients got by name.
func (n *node) lookup(made []lookup) map[string]string {
	n.t.Helper()
	asks := map[string][]string{}
	for _, l := range made {
		asks[l.pod] = append(asks[l.pod], or(l.network, "udp")+"/"+or(l.server, service)+"/"+l.name)
	}
	results := map[string]string{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for pod, list := range asks {
		group.Go(func() {
			out, err := n.TryKubectl(append([]string{"-n", "demo", "exec", pod, "--", "/pod", "together"}, list...)...)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				n.t.Errorf("%s: %v", pod, err)
			}
			for line := range strings.Lines(out) {
				name, result, _ := strings.Cut(strings.TrimSpace(line), " ")
				results[name] = result
			}
		})
	}
	group.Wait()
	return results
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// stop stops the processes of CoreDNS, in the middle of what they do.
func (n *node) stop() {
	n.t.Helper()
	if _, err := n.Exec("pkill", "-STOP", "-f", coreDNSProcess); err != nil {
		n.t.Fatal(err)
	}
}

// remove takes CoreDNS away, and waits until the Service leads nowhere.
func (n *node) remove(v variant) {
	n.t.Helper()
	n.Kubectl("-n", "kube-system", "scale", "deployment", "coredns", "--replicas=0")
	if _, err := n.Exec("pkill", "-KILL", "-f", coreDNSProcess); err != nil {
		n.t.Fatal(err)
	}
	n.Kubectl("-n", "kube-system", "wait", "--for=delete", "pod", "-l", "k8s-app=kube-dns", "--timeout=60s")
	probe := 0
	n.Eventually("the Service leads nowhere", time.Minute, func() error {
		probe++
		var probes []lookup
		for _, l := range absent(v) {
			if l.network != "" {
				continue // of a connection no name would tell which it was
			}
			l.name = fmt.Sprintf("probe%d.%s", probe, l.name)
			probes = append(probes, l)
		}
		results := n.lookup(probes)
		for _, l := range probes {
			if !l.got(results[l.name]) {
				return fmt.Errorf("%s: %q", l.name, results[l.name])
			}
		}
		return nil
	})
}

// records ends the tracer when it has told of the last lookup, and returns all traces.
func (n *node) records() []*trace.Trace {
	n.t.Helper()
	n.Eventually("the last lookup is told", time.Minute, func() error {
		written, err := os.ReadFile(n.Root() + recordsFile)
		if err == nil && !strings.Contains(string(written), last.name) {
			err = fmt.Errorf("%d bytes do not name it", len(written))
		}
		return err
	})
	n.Kubectl("-n", "dnstrace", "delete", "daemonset", "dnstrace")
	n.Kubectl("-n", "dnstrace", "wait", "--for=delete", "pod", "--all", "--timeout=60s")
	written, err := os.ReadFile(n.Root() + recordsFile)
	if err != nil {
		n.t.Fatal(err)
	}
	var traces []*trace.Trace
	for line := range strings.Lines(string(written)) {
		r, err := trace.Decode([]byte(strings.TrimSpace(line)))
		if err != nil {
			n.t.Fatal(err)
		}
		traces = append(traces, r.(*trace.Trace))
	}
	names := map[string]int{}
	for _, t := range traces {
		names[t.QName]++
	}
	n.t.Logf("%d traces: %v", len(traces), names)
	return traces
}
