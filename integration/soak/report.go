package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/tabwriter"
)

// report prints what was seen, and tells whether all of it holds.
func report(to io.Writer, l *ledger, c counted, vitals []sample) bool {
	l.close()
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	held := reportLookups(table, l, c)
	held = reportPackets(table, l, c) && held
	held = reportRecords(table, c) && held
	held = reportVitals(table, vitals) && held
	_ = table.Flush()
	for _, of := range slices.Sorted(maps.Keys(l.examples)) {
		for _, example := range l.examples[of] {
			fmt.Fprintf(to, "%s: %s\n", of, example)
		}
	}
	return held
}

// verdict words a check.
func verdict(ok bool) string {
	if ok {
		return "ok"
	}
	return "FAILED"
}

// reportLookups compares what clients asked with what they must get, and with what
// was traced.
func reportLookups(w io.Writer, l *ledger, c counted) bool {
	fmt.Fprintln(w, "LOOKUPS\tASKED\tANSWERED\tFAILED\tTRACED\tWITH COREDNS\tRECORD ALONE\tSAYS LOSS\tWRONG\tMISSING\t")
	var sum tally
	for _, name := range slices.Sorted(maps.Keys(l.kinds)) {
		k := l.kinds[name]
		if k.asked > 0 {
			k.row(w, name, "")
		}
		sum.add(k)
	}
	ok := sum.asked > 0 && sum.failed == 0 && sum.wrong == 0 && sum.foreign == 0 && sum.twice == 0 && c.explain(&sum)
	sum.row(w, "all", verdict(ok))
	fmt.Fprintf(w, "\nTraces joined with a part of another lookup:\t%d\n", sum.foreign)
	fmt.Fprintf(w, "Traces beside those of clients:\t%d of an exchange that no client made, %d of a record that came late, %d twice\n", l.legs, sum.late, sum.twice)
	fmt.Fprintf(w, "\nCOUNTED AS LOST\t\t\n")
	for _, name := range slices.Concat(lostPackets, lostLookups) {
		fmt.Fprintf(w, "%s\t%.0f\t\n", name, c.tracer[name])
	}
	return ok
}

func (k *tally) row(w io.Writer, name, verdict string) {
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", name, k.asked, k.answered, k.failed, k.traced, k.recorded, k.alone, k.holes, k.wrong, k.missing, verdict)
}

func (k *tally) add(o *tally) {
	k.asked, k.answered, k.failed, k.traced, k.recorded = k.asked+o.asked, k.answered+o.answered, k.failed+o.failed, k.traced+o.traced, k.recorded+o.recorded
	k.alone, k.holes, k.wrong, k.missing = k.alone+o.alone, k.holes+o.holes, k.wrong+o.wrong, k.missing+o.missing
	k.twice, k.late, k.foreign = k.twice+o.twice, k.late+o.late, k.foreign+o.foreign
}

// A TCP connection's first two segments carry no message, and are told in no trace.
// Each is seen at four places, of a client's connection and of one that CoreDNS then
// opens to its upstream, if it has none to use again.
const handshakes = 2 * 4 * 2

// An exchange that is left out or let go of has no more packets than this: a query and
// its response at eight places each, and some that were sent again.
const mostSightings = 40

// reportPackets wants every packet that the tracer saw to be told in a trace, or to be
// counted as one of no lookup, but for what opens TCP connections.
func reportPackets(w io.Writer, l *ledger, c counted) bool {
	seen, none := c.tracer["dnstrace_events_total"], c.sum(ofNoLookup)
	rest := seen - float64(l.told) - none
	room := handshakes*float64(l.kind("TCP").asked) + mostSightings*c.sum(lostLookups)
	ok := rest >= 0 && rest <= room
	fmt.Fprintf(w, "\nPACKETS, ONCE FOR EACH PLACE\t\t\n")
	fmt.Fprintf(w, "seen\t%.0f\t\n", seen)
	fmt.Fprintf(w, "told in traces\t%d\t\n", l.told)
	fmt.Fprintf(w, "counted as of no lookup\t%.0f\t\n", none)
	fmt.Fprintf(w, "rest: what opens TCP connections, at most %.0f\t%.0f\t%s\n", room, rest, verdict(ok))
	return ok
}

// reportRecords compares what CoreDNS wrote with what the tracer got.
func reportRecords(w io.Writer, c counted) bool {
	made := c.coredns["coredns_dnstrace_lookups_total"] + c.coredns["coredns_dnstrace_refreshes_total"]
	wrote, dropped := c.coredns["coredns_dnstrace_records_total"], c.coredns["coredns_dnstrace_records_dropped_total"]
	got := c.tracer["dnstrace_plugin_records_total"]
	refused := c.tracer["dnstrace_plugin_records_refused_total"]
	ok := made > 0 && made == wrote+dropped && wrote == got+refused && refused == 0
	fmt.Fprintf(w, "\nRECORDS OF COREDNS\t\t\n")
	fmt.Fprintf(w, "queries and refreshes\t%.0f\t\n", made)
	fmt.Fprintf(w, "written + dropped\t%.0f + %.0f\t\n", wrote, dropped)
	fmt.Fprintf(w, "received + refused\t%.0f + %.0f\t%s\n", got, refused, verdict(ok))
	return ok
}

// limit is how much a vital may be higher at the end: a share of what it was, and
// so much at least. Memory goes up and down with garbage collection and with what
// others on the machine do: its lowest value counts, which rises with a leak. The
// numbers of files and goroutines go with what is under way: their median counts.
// Maps must not change at all.
type limit struct {
	share, least float64
	of           func([]sample, vital) float64
}

var limits = map[string]limit{
	memoryOwn:  {0.10, 5, lowest},
	heap:       {0.10, 5, lowest},
	files:      {0, 4, median},
	goroutines: {0.10, 6, median},
	bpfMaps:    {0, 0, median},
	bpfMemory:  {0, 0, median},
	// For whoever judges the others.
	packets: {math.Inf(1), 0, median},
}

// reportVitals compares the last third of the time with the first after a warm-up
// of a quarter.
func reportVitals(w io.Writer, all []sample) bool {
	warm := all[len(all)/4:]
	third := len(warm) / 3
	first, last := warm[:third], warm[len(warm)-third:]
	fmt.Fprintf(w, "\nOF %d SAMPLES EACH, MEMORY: THE LOWEST, ELSE THE MEDIAN\tFIRST THIRD\tLAST THIRD\tMAY GROW BY\t\n", third)
	held := true
	var vitals []vital
	for v := range all[0] {
		vitals = append(vitals, v)
	}
	slices.SortFunc(vitals, func(a, b vital) int { return slices.Compare([]string{a.process, a.what}, []string{b.process, b.what}) })
	for _, v := range vitals {
		l := limits[v.what]
		from, to := l.of(first, v), l.of(last, v)
		room := max(l.least, from*l.share)
		ok := to <= from+room
		held = held && ok
		fmt.Fprintf(w, "%s: %s\t%.1f\t%.1f\t%.1f\t%s\n", v.process, v.what, from, to, room, verdict(ok))
	}
	return held
}

func median(samples []sample, v vital) float64 {
	values := sorted(samples, v)
	return values[len(values)/2]
}

func lowest(samples []sample, v vital) float64 { return sorted(samples, v)[0] }

func sorted(samples []sample, v vital) []float64 {
	values := make([]float64, 0, len(samples))
	for _, s := range samples {
		values = append(values, s[v])
	}
	slices.Sort(values)
	return values
}
