package kube

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (p *pods) nameAt(after time.Duration) string {
	if o := p.at(podIP, start.Add(after)); o != nil {
		return o.name
	}
	return ""
}

// An address is that of the pod that had it at the time.
func TestAddressUsedAgain(t *testing.T) {
	p := newPods()
	first := aPod("first", uid, podIP.String())
	p.set(first, start)
	p.remove(keyOf(first), start.Add(10*time.Second))
	second := aPod("second", otherUID, podIP.String())
	second.Status.StartTime = &metav1.Time{Time: start.Add(12 * time.Second)}
	p.set(second, start.Add(13*time.Second))
	for after, want := range map[time.Duration]string{
		-time.Second: "", time.Second: "first", 9 * time.Second: "first", 11 * time.Second: "", 12 * time.Second: "second", time.Hour: "second",
	} {
		if got := p.nameAt(after); got != want {
			t.Errorf("after %s: got %q, expected %q", after, got, want)
		}
	}
}

// A pod that is done keeps its address in the API, though others may have it.
func TestPodThatIsDone(t *testing.T) {
	p := newPods()
	done := aPod("job", uid, podIP.String())
	done.Status.Phase = corev1.PodSucceeded
	done.Status.ContainerStatuses[0].State.Terminated = &corev1.ContainerStateTerminated{FinishedAt: metav1.Time{Time: start.Add(5 * time.Second)}}
	p.set(aPod("job", uid, podIP.String()), start)
	p.set(done, start.Add(7*time.Second))
	p.set(done, start.Add(70*time.Second))
	for after, want := range map[time.Duration]string{4 * time.Second: "job", 5900 * time.Millisecond: "job", 6 * time.Second: ""} {
		if got := p.nameAt(after); got != want {
			t.Errorf("after %s: got %q, expected %q", after, got, want)
		}
	}
}

// A pod that lived for a second is known by its UID and its address for minutes,
// and then no more.
func TestGonePodIsRememberedForAWhile(t *testing.T) {
	p := newPods()
	o := aPod("short", uid, podIP.String())
	p.set(o, start)
	p.remove(keyOf(o), start.Add(time.Second))
	if p.byUID[uid] == nil || p.nameAt(500*time.Millisecond) != "short" || p.count() != 0 {
		t.Fatal("forgotten at once")
	}
	p.set(aPod("other", otherUID, ""), start.Add(rememberFor))
	if p.byUID[uid] == nil {
		t.Error("forgotten early")
	}
	p.set(aPod("other", otherUID, ""), start.Add(rememberFor+2*time.Second))
	if p.byUID[uid] != nil || p.nameAt(500*time.Millisecond) != "" || len(p.byAddr) != 0 {
		t.Error("remembered for ever")
	}
}

// Pods that restart for ever do not grow the tables.
func TestGonePodsAreBounded(t *testing.T) {
	p := newPods()
	for i := range maxGone + 500 {
		o := aPod(fmt.Sprint("p", i), fmt.Sprint(i), podIP.String())
		p.set(o, start)
		p.remove(keyOf(o), start)
	}
	if len(p.byUID) != maxGone || len(p.gone) != maxGone || len(p.byAddr[podIP]) != maxGone {
		t.Errorf("%d by UID, %d gone, %d by address; expected %d", len(p.byUID), len(p.gone), len(p.byAddr[podIP]), maxGone)
	}
}

// A pod that was deleted and recreated under its name is another.
func TestSameNameAnotherPod(t *testing.T) {
	p := newPods()
	p.set(aPod("db-0", uid, podIP.String()), start)
	again := aPod("db-0", otherUID, "10.244.0.8")
	p.set(again, start.Add(time.Minute))
	if p.nameAt(time.Second) != "db-0" || p.nameAt(2*time.Minute) != "" {
		t.Error("the first pod's time is wrong")
	}
	if p.byUID[uid] == nil || p.byUID[otherUID] == nil || p.count() != 1 {
		t.Errorf("%v", p.byUID)
	}
}
