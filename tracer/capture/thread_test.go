package capture

import (
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// A server's threads have names of their own, as those of BIND or a JVM: the process
// has the name that ps shows, that of its first thread, and the one that sends is reported
// beside it.
func TestThreadThatSends(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	source, err := openDevices(Config{Ports: []uint16{receiver.LocalAddr().(*net.UDPAddr).AddrPort().Port()}})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	tid, err := sendNamed("isc-net-0001", receiver.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	leader, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := Packet{PID: os.Getpid(), Comm: strings.TrimSpace(string(leader)), TID: tid, Thread: "isc-net-0001"}
	if !provesProcess(kernel) {
		want = Packet{}
	}
	sent := 0
	for _, p := range poll(t, source) {
		if p.Kind != TX {
			continue
		}
		sent++
		if p.PID != want.PID || p.Comm != want.Comm || p.TID != want.TID || p.Thread != want.Thread {
			t.Errorf("process %d %q, thread %d %q; expected %d %q, %d %q", p.PID, p.Comm, p.TID, p.Thread, want.PID, want.Comm, want.TID, want.Thread)
		}
	}
	if sent != 1 {
		t.Errorf("sent %d times", sent)
	}
}

// sendNamed sends a query from a thread that has taken a name, and returns its number.
// It is not the first one.
func sendNamed(name, to string) (tid int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Not unlocked: the thread, which has another name now, ends with the goroutine.
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// It does not end, and this goroutine must not have it.
			defer runtime.UnlockOSThread()
			tid, err = sendNamed(name, to)
			return
		}
		tid, err = unix.Gettid(), func() error {
			chars, err := unix.ByteSliceFromString(name)
			if err != nil {
				return err
			}
			if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&chars[0])), 0, 0, 0); err != nil {
				return os.NewSyscallError("prctl", err)
			}
			conn, err := net.Dial("udp4", to)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write(query)
			return err
		}()
	}()
	<-done
	return tid, err
}
