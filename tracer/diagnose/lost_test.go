package diagnose_test

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/diagnose"
)

// lose makes an exchange one that was open while the tracer lost packets.
func lose(r trace.Record) {
	if ex, ok := r.(*trace.Exchange); ok {
		ex.LostEvents = 26
	}
}

// sample makes an exchange one of a sample that was drawn in the kernel, of a client
// that may have another address on the way.
func sample(r trace.Record) {
	ex, ok := r.(*trace.Exchange)
	if !ok {
		return
	}
	ex.SampledInKernel = true
	if ex.NAT != nil {
		ex.NAT.ClientIP, ex.NAT.ClientPort = ex.ClientIP, &ex.ClientPort
	}
}

// Where connection tracking told that the client has one address, nothing is missing.
func TestSampledInKernelWithAKnownClient(t *testing.T) {
	for _, nat := range []*trace.NAT{nil, {ServerIP: netip.MustParseAddr("192.0.2.1")}} {
		found := findings(assembledWith(t, fileOf(t, "lost-without-a-drop"), func(r trace.Record) {
			if ex, ok := r.(*trace.Exchange); ok {
				ex.SampledInKernel, ex.NAT = true, nat
			}
		}))
		if got := len(of(diagnose.ResponseLost, found)); (got > 0) != (nat != nil) {
			t.Errorf("translation %+v: %d times %s", nat, got, diagnose.ResponseLost)
		}
	}
}

// Every recorded case as it is reported if the tracer lost packets meanwhile.
func TestRecordedCasesWithLostPackets(t *testing.T) {
	for _, path := range recordedCases(t) {
		t.Run(caseName(path), func(t *testing.T) {
			compare(t, filepath.Join("testdata", "lost", caseName(path)+".golden"), describe(assembledWith(t, path, lose)))
		})
	}
	for _, f := range findings(assembledWith(t, "testdata/"+healthy, lose)) {
		t.Errorf("healthy traffic: %s: %s", f.Code, f.Summary)
	}
}

// What a rule does with its case if packets may be missing.
const (
	stands  = "stands"   // it argues from what was seen alone
	quotes  = "quotes"   // so it does, and says that packets are missing
	inDoubt = "in doubt" // it says so first of all
	silent  = "silent"   // it finds nothing
)

func TestLostPackets(t *testing.T) {
	for code, tc := range map[string]struct{ recorded, want string }{
		diagnose.ClientGaveUp:            {"client-gave-up", inDoubt},
		diagnose.ConntrackFull:           {"conntrack-full", quotes},
		diagnose.ConntrackRace:           {"conntrack-race", quotes},
		diagnose.DroppedByBPF:            {"dropped-by-bpf", quotes},
		diagnose.DroppedByNetfilter:      {"dropped-query", quotes},
		diagnose.DroppedNoSocket:         {"no-listener", quotes},
		diagnose.DroppedOther:            {"dropped-other", quotes},
		diagnose.DroppedReceiveBuffer:    {"dropped-receive-buffer", quotes},
		diagnose.ForwardingLoop:          {"forwarding-loop", quotes},
		diagnose.ListenQueueFull:         {"listen-queue-full", quotes},
		diagnose.NoResponseSeen:          {"no-response-seen", inDoubt}, // there may have been one
		diagnose.NXDomainStorm:           {"nxdomain-storm", stands},
		diagnose.OversizedResponse:       {"oversized-response", stands},
		diagnose.PathMTU:                 {"path-mtu", quotes}, // the kernel reported its drop
		diagnose.QueryNeverArrived:       {"lost-without-a-drop", silent},
		diagnose.RefusedByServer:         {"refused-by-server", inDoubt}, // where no server block wrote a record
		diagnose.ResponseLost:            {"lost-without-a-drop", silent},
		diagnose.ResponseRejected:        {"response-rejected", inDoubt}, // there may have been another,
		diagnose.Retransmission:          {"retransmission", stands},
		diagnose.SearchPathAmplification: {"search-path-glibc", stands},
		diagnose.ServerOverloaded:        {"server-overloaded", inDoubt},
		diagnose.ServerSlow:              {"server-slow", stands},
		diagnose.SlowUpstream:            {"slow-upstream", stands}, // by the server's own record
		diagnose.StaleEndpoint:           {"stale-endpoint", quotes},
		diagnose.TruncatedRetry:          {"truncated-retry", stands},
		diagnose.UnexpectedSource:        {"unexpected-source", inDoubt},
		diagnose.UpstreamError:           {"upstream-error", stands},
		diagnose.UpstreamTimeout:         {"silent-upstream", quotes}, // by the server's own record
		diagnose.UpstreamUnhealthy:       {"upstream-unhealthy", stands},
	} {
		if !slices.Contains(diagnose.Codes, code) {
			t.Errorf("%s is no code", code)
		}
		path := fileOf(t, tc.recorded)
		if len(of(code, findings(assembled(t, path)))) == 0 {
			t.Errorf("%s: %s is no case of it", code, tc.recorded)
		}
		for cause, change := range map[string]func(trace.Record){"lost": lose, "sampled": sample} {
			if got := behaviour(of(code, findings(assembledWith(t, path, change)))); got != tc.want {
				t.Errorf("%s in %s, %s: %s, want %s", code, tc.recorded, cause, got, tc.want)
			}
		}
	}
}

// Without a record of the server's own, only packets tell: then nothing is said of
// upstreams, and what is refused is in doubt.
func TestLostPacketsWithoutTheServersRecords(t *testing.T) {
	for _, tc := range []struct{ code, recorded, want string }{
		{diagnose.UpstreamTimeout, "silent-upstream", silent},
		{diagnose.UpstreamUnhealthy, "upstream-unhealthy", silent},
		{diagnose.SlowUpstream, "slow-upstream", inDoubt},
		{diagnose.RefusedByServer, "refused-by-server", inDoubt},
	} {
		alone := func(change func(trace.Record)) []trace.Finding {
			return of(tc.code, findings(withoutRecords(assembledWith(t, fileOf(t, tc.recorded), change))))
		}
		if len(alone(func(trace.Record) {})) == 0 {
			t.Errorf("%s: the packets of %s are no case of it", tc.code, tc.recorded)
		}
		if got := behaviour(alone(lose)); got != tc.want {
			t.Errorf("%s in %s: %s, want %s", tc.code, tc.recorded, got, tc.want)
		}
	}
}

// Fragments that were seen nowhere may be the tracer's own loss.
func TestLostPacketsOfFragments(t *testing.T) {
	torn := func(lost uint64) []trace.Finding {
		return findings(assembledWith(t, fileOf(t, "lost-fragment"), func(r trace.Record) {
			if ex, ok := r.(*trace.Exchange); ok && ex.Fragments != nil {
				ex.Drops, ex.Outcome, ex.Fragments.Complete, ex.LostEvents = nil, trace.OutcomeUnanswered, false, lost
			}
		}))
	}
	if len(of(diagnose.PathMTU, torn(0))) != 1 {
		t.Error("fragments that are missing are no finding")
	}
	if got := behaviour(of(diagnose.PathMTU, torn(26))); got != silent {
		t.Errorf("%s, want %s", got, silent)
	}
	if got := behaviour(of(diagnose.NoResponseSeen, torn(26))); got != inDoubt {
		t.Errorf("no response: %s, want %s", got, inDoubt)
	}
}

// withoutRecords takes out what CoreDNS recorded.
func withoutRecords(traces []*trace.Trace) []*trace.Trace {
	for _, tr := range traces {
		tr.Query = nil
		for i := range tr.Upstreams {
			tr.Upstreams[i].Attempt = nil
		}
	}
	return traces
}

func behaviour(found []trace.Finding) string {
	if len(found) == 0 {
		return silent
	}
	all := stands
	for _, f := range found {
		quoted := slices.ContainsFunc(f.Evidence, func(e string) bool {
			return strings.HasPrefix(e, "26 packets were lost by the tracer") || strings.HasPrefix(e, "it was sampled in the kernel")
		})
		switch {
		case f.InDoubt && quoted:
			return inDoubt
		case quoted:
			all = quotes
		}
	}
	return all
}

func of(code string, all []trace.Finding) []trace.Finding {
	return slices.DeleteFunc(slices.Clone(all), func(f trace.Finding) bool { return f.Code != code })
}

func fileOf(t *testing.T, recorded string) string {
	t.Helper()
	matches, err := filepath.Glob(filepath.Join("testdata", recorded+".jsonl*"))
	if err != nil || len(matches) != 1 {
		t.Fatalf("%s: %v, %v", recorded, matches, err)
	}
	return matches[0]
}
