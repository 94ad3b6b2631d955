import { testTabs } from './tabs.ts'

testTabs('firefox', 5)
