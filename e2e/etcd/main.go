// The etcd server, from its Go module: distributions ship one that is too old for a current API server.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
