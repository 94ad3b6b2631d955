import { testTabs } from './tabs.ts'

testTabs('chromium', 20)
