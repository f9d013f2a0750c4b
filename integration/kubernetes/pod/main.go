// Command pod is what the pods of the test run, all of them: static, so that it is
// all there is in their image.
//
//	pod                          the container that holds a pod's namespaces
//	pod sleep                    until it is stopped
//	pod lookup NAME...           looks up each name once with the pod's resolver
//	pod ask PORT SERVER NAME     asks SERVER for NAME once, from a local port; 0: from any
//	pod together LOOKUP...       makes all lookups at once, NETWORK/SERVER/NAME each
//	pod reach NETWORK PATH       connects to a unix socket: unix, unixgram
//	pod serve ADDRESS            answers every query over UDP with 192.0.2.1
//	pod load RATE SERVER NAME    asks SERVER for RATE names below NAME a second; on SIGTERM
//	                             it prints how many were asked, answered, retried and not
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// patience is how long a resolver waits, glibc's default.
const patience = 5 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "pod: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch {
	case len(args) == 0:
		return pause(ctx)
	case len(args) == 1 && args[0] == "sleep":
		<-ctx.Done()
		return nil
	case len(args) > 1 && args[0] == "lookup":
		return lookup(ctx, args[1:])
	case len(args) == 4 && args[0] == "ask":
		return ask(ctx, args[1], args[2], args[3])
	case len(args) > 1 && args[0] == "together":
		return together(ctx, args[1:])
	case len(args) == 3 && args[0] == "reach":
		return reach(ctx, args[1], args[2])
	case len(args) == 2 && args[0] == "serve":
		return serve(ctx, args[1])
	case len(args) == 4 && args[0] == "load":
		rate, err := strconv.Atoi(args[1])
		if err != nil || rate <= 0 {
			return fmt.Errorf("%s: expected lookups a second", args[1])
		}
		return load(ctx, rate, args[2], args[3])
	}
	return fmt.Errorf("expected nothing, sleep, lookup NAME..., ask PORT SERVER NAME, together LOOKUP..., reach NETWORK PATH, serve ADDRESS or load RATE SERVER NAME; got %q", args)
}

// pause reaps the processes that a pod leaves behind, as PID 1.
func pause(ctx context.Context) error {
	child := make(chan os.Signal, 8)
	signal.Notify(child, syscall.SIGCHLD)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-child:
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}

// lookup prints what the pod's resolver says of each name.
func lookup(ctx context.Context, names []string) error {
	for _, name := range names {
		ctx, cancel := context.WithTimeout(ctx, patience)
		addrs, err := net.DefaultResolver.LookupHost(ctx, name)
		cancel()
		if err != nil {
			fmt.Println(name, err)
			continue
		}
		fmt.Println(name, addrs)
	}
	return nil
}
