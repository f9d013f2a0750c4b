package kube

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// BenchmarkMemory is what a large cluster takes: 5,000 Services, of which all or every
// hundredth speaks DNS, with ten endpoints each, and 250 pods on the node.
func BenchmarkMemory(b *testing.B) {
	const services, endpointsEach, podsHere = 5000, 10, 250
	for _, every := range []int{1, 100} {
		b.Run(fmt.Sprintf("DNS=%d", services/every), func(b *testing.B) {
			var before, after runtime.MemStats
			for b.Loop() {
				runtime.GC()
				runtime.ReadMemStats(&before)
				c := large(services, endpointsEach, podsHere, every)
				runtime.GC()
				runtime.ReadMemStats(&after)
				runtime.KeepAlive(c)
			}
			b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/1e6, "MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func large(services, endpointsEach, podsHere, every int) *Cluster {
	c := known()
	vip, addr := netip.MustParseAddr("10.96.0.0"), netip.MustParseAddr("10.128.0.0")
	for i := range services {
		protocol, port := corev1.ProtocolTCP, int32(80)
		if i%every == 0 {
			protocol, port = corev1.ProtocolUDP, 53
		}
		vip = vip.Next()
		service := aService(fmt.Sprint("service-", i), vip.String(), protocol, port)
		c.services.set(service)
		var addrs []string
		for range endpointsEach {
			addr = addr.Next()
			addrs = append(addrs, addr.String())
		}
		slice := aSlice(fmt.Sprint("slice-", i), true, addrs...)
		slice.Labels["kubernetes.io/service-name"] = service.Name
		*slice.Ports[0].Protocol, *slice.Ports[0].Port = protocol, port
		c.endpoints.set(slice, start)
	}
	for i := range podsHere {
		addr = addr.Next()
		pod := aPod(fmt.Sprint("web-6d4cf56db6-", i), "", addr.String())
		pod.UID = types.UID(fmt.Sprintf("d5a4b0b8-2d7e-4a1b-9d0c-%012d", i))
		c.pods.set(pod, start)
	}
	return c
}
