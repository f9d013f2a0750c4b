package assemble

import (
	"slices"
	"strings"
	"time"
)

// How long after one lookup the next of the same call begins. A stub resolver
// goes on as soon as it has an answer; what it waits for is its own timeout, of
// whole seconds (resolv.conf(5): 5 s; musl: 2.5 s).
const (
	together   = int64(5 * time.Millisecond)  // A and AAAA from two sockets
	delayed    = int64(50 * time.Millisecond) // the same, of threads that wait for a processor
	oneSocket  = int64(20 * time.Millisecond) // A and AAAA from one socket
	goesOn     = int64(50 * time.Millisecond) // after an answer that was no use
	retryFirst = int64(800 * time.Millisecond)
	retryLast  = int64(6 * time.Second)
)

// group finds which lookups of one process are one call; list is in order of
// start. Nothing is grouped that could as well belong to another call:
//
//   - A and AAAA of one name, from one socket: proof. From two sockets, as Go's
//     resolver sends them: inferred, if there is only one of each;
//   - the same query again, with the DNS ID that it had: to the next server, or once
//     more though it was answered, since its AAAA was not. Of one socket that is proof;
//   - A and AAAA once more from one socket, as glibc asks where the answers do not fit its buffer
//     (rounds.go): inferred;
//   - a name of the search list after one that failed, the same question after
//     one that timed out, to another server after one that failed, or over TCP after
//     one that was truncated: inferred, if only one call was at that point.
func group(list []asking) {
	for i := range list {
		list[i].group, list[i].inferred = i, false
	}
	if len(list) == 1 {
		return
	}
	pairs(list)
	repeats(list)
	bases := make([]int, len(list)) // of a group with a search: labels of the name asked for
	for i := range list {
		if list[i].group != i {
			continue
		}
		if g, ok := roundBefore(list, i); ok {
			join(list, g, i, true)
		} else if g, ok := predecessor(list, i, bases); ok {
			join(list, g, i, true)
		} else if g, ok := truncatedOne(list, i, bases); ok {
			join(list, g, i, true)
		}
	}
}

// truncatedOne finds the one group that the group of lookup i goes on with over TCP, because
// of another than i: a resolver asks for A and AAAA again where one of them was truncated.
func truncatedOne(list []asking, i int, bases []int) (int, bool) {
	for j := i + 1; j < len(list); j++ {
		if list[j].group != i || !list[j].tcp {
			continue
		}
		if g, ok := predecessor(list, j, bases); ok {
			return g, g < i
		}
	}
	return 0, false
}

// reach returns the last time at which a lookup may begin that is one call with
// a, and starts after it.
func (a *asking) reach() int64 {
	switch {
	case !a.answered:
		return a.last + max(retryLast, oneSocket)
	case a.truncated:
		return a.end + retryFirst
	case a.failed, a.fillsBuffer():
		return a.end + max(goesOn, oneSocket)
	}
	return max(a.start+delayed, a.end+oneSocket)
}

// join makes the group that begins at second a part of the one that begins at
// first, which is earlier.
func join(list []asking, first, second int, inferred bool) {
	for i := range list {
		if list[i].group == second {
			list[i].group = first
		}
		if inferred && list[i].group == first {
			list[i].inferred = true
		}
	}
}

// pairs joins A and AAAA.
func pairs(list []asking) {
	for i := range list {
		if j, ok := socketPartner(list, i); ok {
			join(list, j, i, false)
		}
	}
	onlyPartners(list, together)
	onlyPartners(list, delayed)
}

// onlyPartners joins A and AAAA that begin within a time, each of which is the other's only
// partner.
func onlyPartners(list []asking, within int64) {
	for i := range list {
		if paired(list, i) || failedOver(list, i) {
			continue
		}
		if j, ok := onlyPartner(list, i, within); ok && j < i {
			if back, ok := onlyPartner(list, j, within); ok && back == i {
				join(list, j, i, true)
			}
		}
	}
}

// repeats joins what is asked again with the same DNS ID: the resolver sends the message
// that it has, to another server or once more.
func repeats(list []asking) {
	for i := range list {
		b := &list[i]
		for j := i - 1; j >= 0; j-- {
			a := &list[j]
			if a.dns == 0 || a.dns != b.dns || a.name != b.name || a.qtype != b.qtype || b.start-a.last > retryLast || a.tcp != b.tcp {
				continue
			}
			if first, second := min(a.group, b.group), max(a.group, b.group); first != second {
				join(list, first, second, a.port != b.port)
			}
			break
		}
	}
}

func addresses(a, b *asking) bool {
	return a.name == b.name && (a.qtype == "A" && b.qtype == "AAAA" || a.qtype == "AAAA" && b.qtype == "A")
}

func paired(list []asking, i int) bool {
	for j := range list {
		if j != i && list[j].group == list[i].group {
			return true
		}
	}
	return false
}

// socketPartner finds the earlier lookup that came from the same socket as i:
// just before it, or answered just before it (`options single-request`).
func socketPartner(list []asking, i int) (int, bool) {
	b := &list[i]
	for j := i - 1; j >= 0; j-- {
		a := &list[j]
		if a.port != b.port || a.tcp != b.tcp || !addresses(a, b) || paired(list, j) {
			continue
		}
		if b.start-a.start <= oneSocket || a.answered && b.start >= a.end && b.start-a.end <= oneSocket {
			return j, true
		}
	}
	return 0, false
}

// onlyPartner finds the one lookup of the other address type around i, over the same
// protocol, that has no partner, if there is only one, and no second one of i's own type.
func onlyPartner(list []asking, i int, within int64) (int, bool) {
	found, n := 0, 0
	for j := range list {
		concurrent := list[j].start-list[i].start <= within && list[i].start-list[j].start <= within
		if j == i || !concurrent || list[j].name != list[i].name || list[j].tcp != list[i].tcp || paired(list, j) || failedOver(list, j) {
			continue
		}
		if list[j].qtype == list[i].qtype {
			return 0, false
		}
		if addresses(&list[i], &list[j]) {
			found = j
			n++
		}
	}
	return found, n == 1
}

// failedOver tells whether i is asked because another server had failed.
func failedOver(list []asking, i int) bool {
	return slices.ContainsFunc(list[:i], func(a asking) bool { return a.failsOver(&list[i]) })
}

// failsOver tells whether a resolver asks b, of another server, after the failure of a.
func (a *asking) failsOver(b *asking) bool {
	return a.failed && a.name == b.name && a.qtype == b.qtype && a.server != b.server && b.start >= a.end && b.start-a.end <= goesOn
}

// predecessor finds the one group that lookup i goes on with.
func predecessor(list []asking, i int, bases []int) (int, bool) {
	b := &list[i]
	found := -1
	base := 0
	for j := i - 1; j >= 0; j-- {
		a := &list[j]
		labels, ok := goesOnWith(a, b, bases[a.group])
		if !ok {
			labels, ok = unrelatedStep(list, j, i)
		}
		if !ok || a.group == b.group || taken(list, a.group, i) && (labels > 0 || a.failed && askedThere(list, a.group, i)) {
			continue
		}
		if found >= 0 && found != a.group {
			return 0, false
		}
		found, base = a.group, max(base, labels)
	}
	if found < 0 {
		return 0, false
	}
	if base > 0 {
		bases[found] = base
	}
	return found, true
}

// taken tells whether a group has asked i's question already.
func taken(list []asking, g, i int) bool {
	for j := range list {
		if list[j].group == g && list[j].name == list[i].name && list[j].qtype == list[i].qtype {
			return true
		}
	}
	return false
}

// askedThere tells whether a group has asked i's server i's question already.
func askedThere(list []asking, g, i int) bool {
	for j := range list {
		if list[j].group == g && list[j].name == list[i].name && list[j].qtype == list[i].qtype && list[j].server == list[i].server {
			return true
		}
	}
	return false
}

// goesOnWith tells whether b is what a resolver asks after a. For the next name
// of a search list it also returns of how many labels the name asked for is.
func goesOnWith(a, b *asking, base int) (labels int, ok bool) {
	since := b.start - a.end
	if a.name == b.name && a.qtype == b.qtype {
		if a.truncated && b.tcp && since >= 0 && since <= a.goesOnFor(b) || a.failsOver(b) {
			return 0, true
		}
		waited := b.start - a.last
		silent := !a.answered || a.end > b.start
		return 0, silent && waited >= retryFirst && waited <= retryLast
	}
	if !a.failed || since < 0 || since > goesOn {
		return 0, false
	}
	labels, ok = searchStep(a.name, b.name)
	if !ok && base > 0 && commonLabels(a.name, b.name) >= base {
		return base, true
	}
	return labels, ok
}

// goesOnFor is how long after a truncated answer the same is asked over TCP: glibc and musl send
// the message that they have, with its ID, and nobody else has that.
func (a *asking) goesOnFor(b *asking) int64 {
	if a.dns != 0 && a.dns == b.dns {
		return retryFirst
	}
	return goesOn
}

// unrelatedStep tells whether lookup i asks for the next name of a search list after lookup j
// although their suffixes have nothing in common, as "demo.svc.cluster.local" and "corp.test":
// the first is what the kubelet writes in front of all others, below which no Service has a
// name of several labels; or a third lookup goes on with a suffix that is related to the first.
// It returns the labels of the name without suffix.
func unrelatedStep(list []asking, j, i int) (labels int, ok bool) {
	a, b := &list[j], &list[i]
	if !a.failed || b.start < a.end || b.start-a.end > goesOn || a.name == b.name {
		return 0, false
	}
	n := commonLabels(a.name, b.name)
	if n >= 2 && ofNamespace(suffix(a.name, n)) {
		return n, true
	}
	for k := i + 1; k < len(list) && b.failed && n > 0; k++ {
		c := &list[k]
		if c.name == b.name || c.start < b.end || c.start-b.end > goesOn {
			continue
		}
		if labels, ok := searchStep(a.name, c.name); ok && labels <= n && commonLabels(b.name, c.name) >= labels {
			return labels, true
		}
	}
	return 0, false
}

// ofNamespace tells whether a suffix is that of a namespace's Services: NAMESPACE.svc.DOMAIN.
func ofNamespace(suffix string) bool {
	_, above, ok := strings.Cut(suffix, ".")
	return ok && strings.HasPrefix(above, "svc.") && above != "svc."
}

// searchStep tells whether two names are neighbours in a search list: the same
// name with two suffixes, of which one is empty or above the other, as in
// Kubernetes: demo.svc.cluster.local, svc.cluster.local, cluster.local. It
// returns the labels of the name without suffix.
func searchStep(x, y string) (labels int, ok bool) {
	n := commonLabels(x, y)
	if n == 0 || x == y {
		return 0, false
	}
	s, t := suffix(x, n), suffix(y, n)
	return n, s == "" || t == "" || strings.HasSuffix(s, "."+t) || strings.HasSuffix(t, "."+s)
}

// commonLabels counts the labels with which both names begin.
func commonLabels(x, y string) int {
	n := 0
	for {
		i, j := strings.IndexByte(x, '.'), strings.IndexByte(y, '.')
		if i <= 0 || i != j || x[:i] != y[:j] {
			return n
		}
		n++
		x, y = x[i+1:], y[j+1:]
	}
}

// suffix returns a name without its first labels.
func suffix(name string, labels int) string {
	for range labels {
		_, name, _ = strings.Cut(name, ".")
	}
	return name
}
