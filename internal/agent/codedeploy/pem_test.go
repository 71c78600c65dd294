package codedeploy

import "encoding/pem"

func pemDecode(s string) (*pem.Block, []byte) { return pem.Decode([]byte(s)) }
func pemEncode(b *pem.Block) string           { return string(pem.EncodeToMemory(b)) }
