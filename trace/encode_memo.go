package trace

import "sync/atomic"

// memoBits is how many texts a memo keeps, as a power of two: a node has some
// processes a pod. Full, it has some 400 KiB.
const memoBits = 10

// memo caches the JSON of what almost every record repeats: its client and server.
// Comparing and copying takes a fifth of the time of encoding. A collision evicts
// the older text. Safe for concurrent use.
type memo[K comparable] [1 << memoBits]atomic.Pointer[remembered[K]]

// remembered never changes.
type remembered[K comparable] struct {
	key  K
	json string
}

// append appends the JSON of key, which encode makes if it is not cached. hash distinguishes
// most keys.
func (m *memo[K]) append(b []byte, key *K, hash uint32, encode func(b []byte, key K) []byte) []byte {
	at := &m[hash*spread>>(32-memoBits)]
	if known := at.Load(); known != nil && known.key == *key {
		return append(b, known.json...)
	}
	from := len(b)
	b = encode(b, *key) // by value, so that the caller's key need not be on the heap
	at.Store(&remembered[K]{*key, string(b[from:])})
	return b
}

// spread parts numbers that follow each other (Knuth's multiplicative hash).
const spread = 2654435761

var endpoints memo[Endpoint]

func (e *Endpoint) appendJSON(b []byte) []byte {
	if e == nil {
		return append(b, "null"...)
	}
	// A pod of another node has no process: its name identifies it.
	hash := uint32(e.PID)*31 + uint32(e.TID)
	for _, c := range []byte(e.Pod) {
		hash = hash*31 + uint32(c)
	}
	return endpoints.append(b, e, hash, encodeEndpoint)
}

func encodeEndpoint(b []byte, e Endpoint) []byte {
	b = append(b, '{')
	first := len(b)
	for _, m := range [...]struct{ name, value string }{
		{`"pod":`, e.Pod}, {`"namespace":`, e.Namespace}, {`"node":`, e.Node}, {`"container":`, e.Container}, {`"process":`, e.Process},
		{`"cgroup":`, e.Cgroup}, {`"thread":`, e.Thread}, {`"workload":`, e.Workload}, {`"service":`, e.Service}, {`"service_state":`, e.ServiceState},
	} {
		if m.value != "" {
			b = appendQuote(append(separate(b, first), m.name...), m.value)
		}
	}
	if e.PID != 0 {
		b = appendInt(append(separate(b, first), `"pid":`...), e.PID)
	}
	if e.TID != 0 {
		b = appendInt(append(separate(b, first), `"tid":`...), e.TID)
	}
	if e.ServiceInferred {
		b = append(separate(b, first), `"service_inferred":true`...)
	}
	return append(b, '}')
}

// separate appends a comma unless the members of an object begin here.
func separate(b []byte, first int) []byte {
	if len(b) > first {
		return append(b, ',')
	}
	return b
}
